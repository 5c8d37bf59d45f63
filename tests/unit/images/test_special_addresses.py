"""Which addresses pictures may come from, by the registries of special-purpose blocks."""

from __future__ import annotations

import pytest

from shopvision.images.special_addresses import is_public

# (just before, first, last, just after); None where the neighbour is special too, or there is none
V4 = {
    "this network": (None, "0.0.0.0", "0.255.255.255", "1.0.0.0"),
    "private 10": ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
    "shared": ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
    "loopback": ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
    "link local": ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
    "private 172": ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
    "protocol assignments": ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
    "documentation 1": ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
    "AS112 v4": ("192.31.195.255", "192.31.196.0", "192.31.196.255", "192.31.197.0"),
    "AMT": ("192.52.192.255", "192.52.193.0", "192.52.193.255", "192.52.194.0"),
    "6to4 relays": ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
    "private 192": ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
    "AS112 direct": ("192.175.47.255", "192.175.48.0", "192.175.48.255", "192.175.49.0"),
    "benchmarks": ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
    "documentation 2": ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
    "documentation 3": ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
    "multicast": ("223.255.255.255", "224.0.0.0", "239.255.255.255", None),
    "reserved": (None, "240.0.0.0", "255.255.255.255", None),
    "Azure's wire server": ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
}
V6 = {
    "unspecified": (None, "::", "::", None),
    "loopback": (None, "::1", "::1", None),
    "IPv4-compatible": (None, "::2", "::ffff:ffff", None),
    "discard": (None, "100::", "100::ffff:ffff:ffff:ffff", None),
    "dummy": (None, "100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", None),
    "local NAT64": (None, "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", None),
    "protocol assignments": (
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001::",
        "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:200::",
    ),
    "Teredo": (None, "2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "port control": (None, "2001:1::1", "2001:1::3", None),
    "benchmarks": (None, "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", None),
    "AMT": (None, "2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "AS112": (None, "2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff", None),
    "ORCHID": (None, "2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "ORCHIDv2": (None, "2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "DRIP": (None, "2001:30::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "documentation": (
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db8::",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
    ),
    "6to4": ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    "AS112 direct": (
        "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
        "2620:4f:8000::",
        "2620:4f:8000:ffff:ffff:ffff:ffff:ffff",
        "2620:4f:8001::",
    ),
    "documentation 2": ("3ffe:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    "segment routing": (None, "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "unique local": (None, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "link local": (None, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "site local": (None, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "multicast": (None, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
}


@pytest.mark.parametrize(("before", "first", "last", "after"), [*V4.values(), *V6.values()], ids=[*V4, *V6])
def test_every_block_is_refused_to_its_ends(before: str | None, first: str, last: str, after: str | None) -> None:
    assert not is_public(first)
    assert not is_public(last)
    assert all(is_public(address) for address in (before, after) if address is not None)


@pytest.mark.parametrize("wrapped", ["::ffff:{}", "64:ff9b::{}"])
@pytest.mark.parametrize(("before", "first", "last", "after"), V4.values(), ids=V4)
def test_wrapped_addresses_are_as_public_as_what_they_lead_to(
    before: str | None, first: str, last: str, after: str | None, wrapped: str
) -> None:
    assert not is_public(wrapped.format(first))
    assert not is_public(wrapped.format(last))
    assert all(is_public(wrapped.format(address)) for address in (before, after) if address is not None)


@pytest.mark.parametrize(
    "address",
    [
        "192.0.0.192",  # Oracle's metadata service
        "169.254.169.254",
        "100.100.100.200",  # Alibaba's metadata service
        "fd00:ec2::254",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::1",
        "2001:0:808:808:0:0:80ff:fffe",  # Teredo through 8.8.8.8 to 127.0.0.1
        "::127.0.0.1",
        "fe80::1%eth0",
        "not an address",
        "",
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::1"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)
