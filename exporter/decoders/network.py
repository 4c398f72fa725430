"""Decoders of network fields: inet, proto, tcp_state, port_class, ifname (include/uapi/linux/in.h, tcp_states.h)."""

from __future__ import annotations

import socket

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

EPHEMERAL = "ephemeral"

V4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2

# Lower-case names of IPPROTO_* in include/uapi/linux/in.h and in6.h; those of IANA where the kernel has none.
_PROTOCOLS = {
    0: "ip",
    1: "icmp",
    2: "igmp",
    4: "ipip",
    6: "tcp",
    8: "egp",
    12: "pup",
    17: "udp",
    22: "idp",
    29: "tp",
    33: "dccp",
    41: "ipv6",
    43: "routing",
    44: "fragment",
    46: "rsvp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    60: "dstopts",
    89: "ospf",
    92: "mtp",
    94: "beetph",
    98: "encap",
    103: "pim",
    108: "comp",
    112: "vrrp",
    115: "l2tp",
    132: "sctp",
    135: "mh",
    136: "udplite",
    137: "mpls",
    143: "ethernet",
    255: "raw",
    256: "smc",
    262: "mptcp",
}

# include/net/tcp_states.h. The kernel has no state 0: programs use it where there is no socket.
_TCP_STATES = {
    0: "none",
    1: "established",
    2: "syn_sent",
    3: "syn_recv",
    4: "fin_wait1",
    5: "fin_wait2",
    6: "time_wait",
    7: "close",
    8: "close_wait",
    9: "last_ack",
    10: "listen",
    11: "closing",
    12: "new_syn_recv",
    13: "bound_inactive",
}


def fits_address(step: DecodeStep, given: Input) -> str | None:
    if given.source is not None and given.source.size not in (4, 16):
        has = f"{given.source.size} ({given.source.spelling})"
        return f"decoder {step.name} takes 4 or 16 bytes, but the field has {has}"
    return None


def address(raw: bytes) -> str | None:
    """Return 4 or 16 bytes in network order as an IPv4 or IPv6 address; a v4-mapped address is shown as IPv4."""
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw)
    if len(raw) != 16:
        return None
    if raw.startswith(V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def _inet(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return address


def _proto(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return _PROTOCOLS.get


def _tcp_state(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return _TCP_STATES.get


def _port_class(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    """Decode a port in host order. The C text passes 0 for a port that no socket listens on."""
    return lambda port: str(port) if port else EPHEMERAL


def _ifname(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Decode an index of the exporter's network namespace; 0 is "none"."""
    return lambda index: names.interfaces.name(index) if index else "none"


DECODERS = (
    Decoder("inet", takes=("bytes",), gives="text", bind=_inet, fits=fits_address, unknown=None),
    Decoder("proto", takes=("int",), gives="text", bind=_proto),
    Decoder("tcp_state", takes=("int",), gives="text", bind=_tcp_state),
    Decoder("port_class", takes=("int",), gives="text", bind=_port_class, unknown=None),
    Decoder("ifname", takes=("int",), gives="text", bind=_ifname, volatile=True),
)
