import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InitF9tRequest(_message.Message):
    __slots__ = ("f9t_config", "force_init")
    F9T_CONFIG_FIELD_NUMBER: _ClassVar[int]
    FORCE_INIT_FIELD_NUMBER: _ClassVar[int]
    f9t_config: _struct_pb2.Struct
    force_init: bool
    def __init__(self, f9t_config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., force_init: _Optional[bool] = ...) -> None: ...

class InitF9tResponse(_message.Message):
    __slots__ = ("init_status", "message", "f9t_config")
    class InitStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNDEFINED: _ClassVar[InitF9tResponse.InitStatus]
        INVALID_CONFIG: _ClassVar[InitF9tResponse.InitStatus]
        SUCCESS: _ClassVar[InitF9tResponse.InitStatus]
        FAILURE: _ClassVar[InitF9tResponse.InitStatus]
    UNDEFINED: InitF9tResponse.InitStatus
    INVALID_CONFIG: InitF9tResponse.InitStatus
    SUCCESS: InitF9tResponse.InitStatus
    FAILURE: InitF9tResponse.InitStatus
    INIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    F9T_CONFIG_FIELD_NUMBER: _ClassVar[int]
    init_status: InitF9tResponse.InitStatus
    message: str
    f9t_config: _struct_pb2.Struct
    def __init__(self, init_status: _Optional[_Union[InitF9tResponse.InitStatus, str]] = ..., message: _Optional[str] = ..., f9t_config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class PollRequest(_message.Message):
    __slots__ = ("cfg_key_patterns",)
    CFG_KEY_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    cfg_key_patterns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cfg_key_patterns: _Optional[_Iterable[str]] = ...) -> None: ...

class PollResponse(_message.Message):
    __slots__ = ("parsed_data",)
    PARSED_DATA_FIELD_NUMBER: _ClassVar[int]
    parsed_data: _struct_pb2.Struct
    def __init__(self, parsed_data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CaptureUbloxRequest(_message.Message):
    __slots__ = ("patterns",)
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, patterns: _Optional[_Iterable[str]] = ...) -> None: ...

class CaptureUbloxResponse(_message.Message):
    __slots__ = ("type", "name", "parsed_data", "pkt_unix_timestamp", "message", "payload")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNDEFINED: _ClassVar[CaptureUbloxResponse.Type]
        DATA: _ClassVar[CaptureUbloxResponse.Type]
        ERROR: _ClassVar[CaptureUbloxResponse.Type]
    UNDEFINED: CaptureUbloxResponse.Type
    DATA: CaptureUbloxResponse.Type
    ERROR: CaptureUbloxResponse.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARSED_DATA_FIELD_NUMBER: _ClassVar[int]
    PKT_UNIX_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    type: CaptureUbloxResponse.Type
    name: str
    parsed_data: _struct_pb2.Struct
    pkt_unix_timestamp: _timestamp_pb2.Timestamp
    message: str
    payload: bytes
    def __init__(self, type: _Optional[_Union[CaptureUbloxResponse.Type, str]] = ..., name: _Optional[str] = ..., parsed_data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., pkt_unix_timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...
