"""PROXY headers of version 2, byte by byte (haproxy.org, proxy-protocol.txt, section 2.2)."""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def packed(text):
    """An address as 16 bytes; one of IPv4 mapped into IPv6."""
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


V4 = struct.pack(">4s4sHH", bytes([192, 0, 2, 1]), bytes([10, 0, 0, 1]), 5000, 80)
V6 = struct.pack(">16s16sHH", packed("2001:db8::1"), packed("::1"), 5000, 80)


def v2(command=0x21, family=0x11, rest=V4):
    """A header: version and command, family and transport, addresses with what follows them."""
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(rest)) + rest


def tlvs(size):
    """A TLV that may follow the addresses: type, length, value. Here a certificate, say."""
    value = size - 3
    return b"\x20" + struct.pack(">H", value) + b"x" * value
