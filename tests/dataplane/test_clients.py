"""Who a client is: addresses as text and bytes, trusted networks, the PROXY header, connections
counted by address.
"""

import ipaddress
import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.proxy_headers import SIGNATURE, V4, V6, packed, tlvs, v2

from fastticket.dataplane.clients import Networks, Tally, address_of, address_text, proxy_header


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"1.2.3.4", "1.2.3.4"),
        (b"1.2.3.4:80", "1.2.3.4"),
        (b"::1", "::1"),
        (b"[::1]", "::1"),
        (b"[2001:db8::7]:65535", "2001:db8::7"),
        (b"::ffff:1.2.3.4", "1.2.3.4"),
    ],
)
def test_an_address_in_a_list(text, address):
    assert address_of(text) == packed(address)
    assert address_text(packed(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"unknown",
            b"_hidden",
            b"1.2.3",
            b"1.2.3.4.5",
            b"256.1.1.1",
            b"1.2.3.4:",
            b"1.2.3.4:x",
            b"1.2.3.4:123456",
        ),
        *(
            b"[::1",
            b"[::1]x",
            b"[::1]:",
            b"[1.2.3.4]",
            b"::1]:80",
            b"1.2.3.4 ",
            b" 1.2.3.4",
            b"01.2.3.4",
            b"fe80::1%eth0",
        ),
        *(b"a" * 100, b"1.2.3.4\0", b'"[::1]"'),
    ],
)
def test_what_is_no_address(text):
    assert address_of(text) is None


@given(st.ip_addresses(), st.sampled_from([8, 16, 24, 31, 32]), st.ip_addresses())
def test_networks_agree_with_ipaddress(base, bits, other):
    network = ipaddress.ip_network((base, bits), strict=False)
    networks = Networks([network])
    assert (str(base) in networks) == (getattr(base, "ipv4_mapped", None) is None)  # such a one is an address of IPv4
    mapped = getattr(other, "ipv4_mapped", None) or other
    assert (str(other) in networks) == (mapped in network)


def test_an_address_of_both_families_is_one():
    assert "::ffff:10.1.2.3" in Networks([ipaddress.ip_network("10.0.0.0/8")])
    assert "::10.1.2.3" not in Networks([ipaddress.ip_network("10.0.0.0/8")])


# --- PROXY header

MOST = 4096


OWN = "the proxy's own"
NOBODY = "of somebody whom it does not name"
GOOD = {
    b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n": "192.0.2.1",
    b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n": "2001:db8::1",
    b"PROXY UNKNOWN\r\n": NOBODY,
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": NOBODY,
    v2(): "192.0.2.1",
    v2(rest=V4 + b"\x04\0\x01x"): "192.0.2.1",
    v2(family=0x21, rest=V6): "2001:db8::1",
    v2(command=0x20, family=0, rest=b""): OWN,
    v2(command=0x20): OWN,
    v2(command=0x20, family=0x31, rest=bytes(216)): OWN,
    v2(family=0, rest=b""): NOBODY,
    v2(family=0, rest=tlvs(40)): NOBODY,
    v2(family=0x31, rest=bytes(216)): NOBODY,
    v2(family=0x32, rest=bytes(216)): NOBODY,
    v2(family=0x12): NOBODY,
    v2(family=0x22, rest=V6): NOBODY,
    v2(family=0xFF, rest=b""): NOBODY,
    v2(rest=V4 + tlvs(1000)): "192.0.2.1",
    v2(rest=V4 + tlvs(MOST - 28)): "192.0.2.1",
    v2(family=0x21, rest=V6 + tlvs(MOST - 52)): "2001:db8::1",
    v2(command=0x20, family=0, rest=tlvs(MOST - 16)): OWN,
}


@pytest.mark.parametrize(("header", "source"), GOOD.items())
def test_a_proxy_header(header, source):
    wanted = (len(header), {OWN: "own", NOBODY: None}[source] if source in (OWN, NOBODY) else packed(source))
    assert proxy_header(header, MOST) == wanted
    assert proxy_header(header + b"GET / HTTP/1.1\r\n", MOST) == wanted
    assert {proxy_header(header[:size], MOST) for size in range(len(header))} == {0}


@pytest.mark.parametrize("rest", [V4 + tlvs(MOST - 27), V4 + tlvs(60_000), V4 + b"\0" * 65_000, b"\0" * 65_535])
@pytest.mark.parametrize("command", [0x20, 0x21])
def test_one_that_is_too_large_is_known_by_its_first_bytes(command, rest):
    header = v2(command=command, rest=rest)
    assert proxy_header(header[:15], MOST) == 0
    assert {proxy_header(header[:size], MOST) for size in range(16, 100)} == {-431}


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWNx\r\n",
        b"PROXY " + b"x" * 200,
        v2(command=0x11),
        v2(command=0x22),
        v2(rest=V4[:11]),
        v2(family=0x21, rest=V6[:35]),
    ],
)
def test_what_is_no_proxy_header(header):
    assert proxy_header(header, MOST) == -400


@given(st.binary(max_size=600), st.sampled_from([b"", SIGNATURE, b"PROXY "]))
def test_a_proxy_header_is_never_read_past_its_end(data, begin):
    result = proxy_header(begin + data, MOST)
    assert result in (0, -400, -431) or 0 < result[0] <= len(begin + data)


# --- tally

ADDRESSES = [packed(f"10.0.0.{n}") for n in range(12)] + [packed(f"2001:db8:0:{n}::1") for n in range(12)]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(ADDRESSES)), max_size=200))
def test_a_tally_counts_like_a_counter(steps):
    tally, model = Tally(24), Counter()
    for enters, address in steps:
        if enters:
            model[address] += 1
            assert tally.enter(address) == model[address]
        elif model[address]:
            model[address] -= 1
            tally.leave(address)
    for address in ADDRESSES:
        assert tally.enter(address) == model[address] + 1


def test_whoever_was_pushed_on_is_still_found_when_the_place_becomes_free():
    """Of five addresses in a table of four places two have one home, whatever the seed; and some
    row of three goes round its end.
    """
    addresses = ADDRESSES[:9]
    for tally in (Tally(2) for _ in range(16)):
        for some in [*itertools.permutations(addresses[:5], 2), *itertools.permutations(addresses, 3)]:
            for address in some:
                assert tally.enter(address) == 1
            for number, leaving in enumerate(some):
                tally.leave(leaving)
                for address in some[number + 1 :]:
                    assert tally.enter(address) == 2
                    tally.leave(address)


def test_who_is_not_there_does_not_leave():
    tally = Tally(2)
    tally.leave(ADDRESSES[0])
    assert tally.enter(ADDRESSES[0]) == 1


def test_a_subscriber_has_one_count_for_his_whole_network():
    tally = Tally(8)
    assert tally.enter(packed("2001:db8::1")) == 1
    assert tally.enter(packed("2001:db8::ffff:2")) == 2
    assert tally.enter(packed("2001:db8:0:1::1")) == 1
