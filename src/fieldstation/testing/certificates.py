"""Certificates for tests of TLS, made with openssl as an operator would make them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fieldstation.testing.programs import program

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A certificate authority in `folder`; `certificate` is what to trust. MissingProgramError without openssl."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._openssl = program("openssl")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.crt"
        self._run(
            *("req", "-x509", *_NEW_KEY, "-days", "30", "-subj", f"/CN={name}", "-keyout", "ca.key", "-out", "ca.crt"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(self, name: str, *, days: int = 30) -> tuple[Path, Path]:
        """Return (certificate, key) of `name`, for a server on localhost or a client; negative `days`: expired."""
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        self._run("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", str(days), "-extfile", extensions.name, "-out", f"{name}.crt"),
        )
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _run(self, *words: str) -> None:
        subprocess.run([self._openssl, *words], cwd=self.folder, check=True, capture_output=True)
