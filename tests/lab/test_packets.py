import struct

from hypothesis import given
from hypothesis import strategies as st

from softlan.lab.dhcp import Message
from softlan.lab.packets import BROADCAST, checksum, ethernet, ipv4, mac_bytes, mac_text, parse_udp, udp_frame

MAC = mac_bytes("02:00:5e:10:00:01")
PORTS = st.integers(1, 65535)


def test_checksum_of_the_rfc_example() -> None:
    """RFC 1071, section 3: the sum is ddf2 before the complement."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_mac_text_and_back() -> None:
    assert mac_text(MAC) == "02:00:5e:10:00:01"


def test_ipv4_header_sums_to_zero() -> None:
    assert checksum(ipv4("192.0.2.1", "192.0.2.2", 17, b"data")[:20]) == 0


@given(payload=st.binary(max_size=1400), source=PORTS, destination=PORTS)
def test_udp_frames_parse_back(payload: bytes, source: int, destination: int) -> None:
    frame = udp_frame((BROADCAST, MAC), ("192.0.2.1", source), ("192.0.2.2", destination), payload)
    packet = parse_udp(frame)
    assert packet is not None
    assert packet.payload == payload
    assert packet.source == ("192.0.2.1", source)
    assert packet.destination == ("192.0.2.2", destination)


@given(st.binary(max_size=100))
def test_noise_is_no_udp_or_parses(data: bytes) -> None:
    parse_udp(data)
    parse_udp(BROADCAST + MAC + b"\x08\x00\x45" + data)


def test_tags_go_between_source_and_type() -> None:
    frame = ethernet(BROADCAST, MAC, 0x0800, b"x", (0x88A8, 7), (0x8100, 5))
    assert frame[12:22] == struct.pack("!HHHHH", 0x88A8, 7, 0x8100, 5, 0x0800)


@given(
    reply=st.booleans(),
    transaction=st.integers(0, 2**32 - 1),
    options=st.dictionaries(st.integers(1, 254), st.binary(max_size=255), max_size=5),
)
def test_dhcp_messages_survive(reply: bool, transaction: int, options: dict[int, bytes]) -> None:
    message = Message(reply, transaction, MAC, "192.0.2.9", options)
    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=400))
def test_noise_is_no_dhcp_or_decodes(data: bytes) -> None:
    Message.decode(data)
    Message.decode(bytes(236) + b"\x63\x82\x53\x63" + data)
