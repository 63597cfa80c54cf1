"""Versioned objects on S3 or MinIO, with keys from the identity server when there is one."""

from __future__ import annotations

import datetime
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.errors import StorageError
from fieldstation.pipeline.persistent import ObjectInfo, Stored

_TIMEOUT_S = 10
_MISSING = ("404", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "405")


class S3Backend:
    """See persistent.Backend. The bucket must exist; its versioning is the manager's matter and is switched on here
    when it is off and we may."""

    def __init__(self, config: NodeConfig) -> None:
        boto3 = require("boto3", extra="s3", feature="Persistent storage on S3 (minio.endpoint)")
        from botocore.config import Config  # type: ignore[import-untyped]  # ships no types

        minio = config.minio
        self._bucket = minio.bucket or config.metadata.product_id
        self._url = f"{'https' if minio.ssl else 'http'}://{minio.endpoint}"
        keys = _session_keys(config, self._url) if config.auth.endpoint else {}
        self._client = boto3.client(
            "s3",
            endpoint_url=self._url,
            region_name="us-east-1",
            aws_access_key_id=keys.get("AccessKeyId", minio.client_user),
            aws_secret_access_key=keys.get("SecretAccessKey", minio.client_password),
            aws_session_token=keys.get("SessionToken"),
            config=Config(
                s3={"addressing_style": "path"}, connect_timeout=_TIMEOUT_S, retries={"total_max_attempts": 3}
            ),
        )

    def put(self, key: str, data: bytes, ttl_days: int | None, metadata: Mapping[str, str]) -> ObjectInfo:
        """Set the expiry rule first, then store the object."""
        if ttl_days is not None:
            self._expire(key, ttl_days)
        answer = self._call("put_object", Key=key, Body=data, Metadata=dict(metadata))
        expires = _expiry(answer.get("Expiration"))
        if expires is None and ttl_days is not None:
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=ttl_days)
        return ObjectInfo(key, answer.get("VersionId", ""), expires)

    def get(self, key: str, version: str | None) -> tuple[Stored, bytes] | None:
        """Return (what is known of it, bytes), or None."""
        which = {"VersionId": version} if version else {}
        answer = self._call("get_object", missing=None, Key=key, **which)
        if answer is None:
            return None
        info = ObjectInfo(key, answer.get("VersionId", ""), _expiry(answer.get("Expiration")))
        return Stored(info, answer.get("Metadata", {})), answer["Body"].read()

    def versions(self, prefix: str) -> list[Stored]:
        """Return live versions; the metadata of each costs a request, as S3 lists none."""
        found = []
        more: dict[str, str] = {}
        while True:
            page = self._call("list_object_versions", Prefix=prefix, **more)
            for entry in page.get("Versions", []):
                head = self._call("head_object", missing={}, Key=entry["Key"], VersionId=entry["VersionId"])
                info = ObjectInfo(entry["Key"], entry["VersionId"], _expiry(head.get("Expiration")))
                found.append(Stored(info, head.get("Metadata", {}), bool(entry["IsLatest"])))
            if not page.get("IsTruncated"):
                return found
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def delete(self, key: str, version: str | None) -> bool:
        """Delete a version, or put a delete marker."""
        which = {"VersionId": version} if version else {}
        if self._call("head_object", missing=None, Key=key, **which) is None:
            return False
        self._call("delete_object", Key=key, **which)
        return True

    def _expire(self, key: str, days: int) -> None:
        found = self._call("get_bucket_lifecycle_configuration", missing={}) or {}
        rule = {"ID": f"ttl-{key}", "Status": "Enabled", "Filter": {"Prefix": key}, "Expiration": {"Days": days}}
        rules = [old for old in found.get("Rules", []) if old.get("ID") != rule["ID"]]
        self._call("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": [*rules, rule]})

    def _call(self, name: str, missing: Any = ..., **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # as above

        try:
            return getattr(self._client, name)(Bucket=self._bucket, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if missing is not ... and (code in _MISSING or code == "NoSuchLifecycleConfiguration"):
                return missing
            raise StorageError(what=f"{self._url}/{self._bucket}", problem=error) from error
        except BotoCoreError as error:
            raise StorageError(what=f"{self._url}/{self._bucket}", problem=error) from error


def _expiry(header: str | None) -> datetime.datetime | None:
    found = re.search(r'expiry-date="([^"]+)"', header or "")
    return parsedate_to_datetime(found[1]) if found else None


def _session_keys(config: NodeConfig, storage_url: str) -> dict[str, str]:
    """Password grant at the identity server, then temporary keys from the storage for that token."""
    auth = config.auth
    form = {
        "grant_type": "password",
        "client_id": auth.client,
        "client_secret": auth.client_secret,
        "username": config.minio.client_user,
        "password": config.minio.client_password,
        "scope": "openid",
    }
    token_url = f"{auth.endpoint.rstrip('/')}/realms/{auth.realm}/protocol/openid-connect/token"
    token = json.loads(_post(token_url, form))["access_token"]
    grant = {"Action": "AssumeRoleWithClientGrants", "Version": "2011-06-15", "Token": token, "DurationSeconds": "3600"}
    root = ET.fromstring(_post(storage_url, grant))  # noqa: S314 - the answer of the configured storage server
    return {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter() if element.text}


def _post(url: str, form: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode())  # noqa: S310 - configured address
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError) as error:
        raise StorageError(what=url, problem=error) from error
