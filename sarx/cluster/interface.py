"""The network interface that carries a node's Ray address: gloo and NCCL are told to use it.

Left alone, gloo takes the address that the host's name resolves to, which on many machines is 127.0.0.1, and
ranks on other hosts cannot connect ("Gloo connectFullMesh failed").
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

SIOCGIFADDR = 0x8915
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_of(address: str) -> str | None:
    """Return the name of the interface that has an IPv4 address; None if none has, or it is no IPv4 one."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an address
                continue
            if answer[20:24] == wanted:
                return name
    return None


def use_interface(address: str) -> str | None:
    """Let gloo and NCCL use the interface of an address, unless the user chose one; return its name."""
    name = interface_of(address)
    if name is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, name)
    return name
