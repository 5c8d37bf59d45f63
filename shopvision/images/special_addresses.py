"""Which addresses are public: everything in the registries of special-purpose blocks is refused.

The list is our own, for Python's ``is_global`` follows the registries of its release (3.11.7 takes 192.0.0.192 for
public). Blocks that the registries call reachable are refused as well: nobody serves pictures from them.
"""

from __future__ import annotations

import ipaddress

# IANA IPv4 Special-Purpose Address Registry (RFC 6890 and its successors), and multicast.
SPECIAL_V4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private use
    "100.64.0.0/10",  # shared by carriers, and the metadata services of some clouds
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link local, and the metadata services of most clouds
    "172.16.0.0/12",  # private use
    "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # multicast tunnels
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private use
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the limited broadcast
    "168.63.129.16/32",  # not in the registry: services inside Azure's machines
)
# All that is routed. Loopback, mapped, translated, discarded, unique local, link and site local, multicast lie outside.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Of the IANA IPv6 Special-Purpose Address Registry, what lies inside.
SPECIAL_V6 = (
    "2001::/23",  # protocol assignments: Teredo (which carries an IPv4 address), benchmarks, ORCHID, DRIP
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which carries an IPv4 address
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
# Where an IPv4 address in the last 32 bits is what is reached.
WRAPPED_V4 = (
    "::ffff:0:0/96",  # mapped
    "64:ff9b::/96",  # NAT64, as a resolver for hosts without IPv4 answers
)

_V4 = tuple(ipaddress.IPv4Network(block) for block in SPECIAL_V4)
_V6 = tuple(ipaddress.IPv6Network(block) for block in SPECIAL_V6)
_WRAPPED = tuple(ipaddress.IPv6Network(block) for block in WRAPPED_V4)


def is_public(address: str) -> bool:
    """False for addresses of any special purpose, however wrapped, and for what is no address."""
    try:
        ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in block for block in _WRAPPED):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in block for block in _V4)
    return ip in GLOBAL_UNICAST and not any(ip in block for block in _V6)
