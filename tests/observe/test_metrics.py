"""What Prometheus reads."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families
from synthetic import Synthetic

from softlan._core import COUNTER_NAMES, DROP_REASONS
from softlan.control.codes import Code
from softlan.observe.counters import DROP_COUNTERS
from softlan.observe.metrics import Exporter
from softlan.relay.ledger import Numbers, RoomNumbers


def read(numbers):
    page = Exporter(lambda: numbers).page().decode()
    return {family.name: family for family in text_string_to_metric_families(page)}


def values(family, *labels):
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


def one_room(**counters):
    room = RoomNumbers(1, Counter(client=2), [0.01, 0.03, 0.02], Counter(counters))
    return Numbers({"A": room}, 5, {Code.ROOM_FULL: 2}, {"retries": 7, "unfinished": 3}, 1.8e9)


def test_the_counters_of_the_core_are_all_there():
    told = read(one_room(**{name: number + 1 for number, name in enumerate(COUNTER_NAMES)}))
    for number, name in enumerate(COUNTER_NAMES):
        if name in DROP_COUNTERS:
            found = values(told["softlan_frames_dropped"], "room", "reason")[("A", DROP_COUNTERS[name])]
        else:
            found = values(told[f"softlan_{name}"], "room")[("A",)]
        assert found == number + 1
    assert len(told["softlan_frames_dropped"].samples) == len(DROP_REASONS)


def test_each_has_help_and_a_type():
    told = read(one_room(drop_runt=1))
    ours = [family for name, family in told.items() if name.startswith("softlan")]
    assert len(ours) > 12
    assert all(family.documentation for family in ours)
    assert told["softlan_frames_received"].type == "counter"
    assert told["softlan_frames_received"].samples[0].name == "softlan_frames_received_total"
    assert told["softlan_peers"].type == "gauge"
    assert "process_open_fds" in told


def test_peers_and_refusals():
    told = read(one_room())
    assert values(told["softlan_peers"], "room", "role") == {("A", "client"): 2, ("A", "gateway"): 0}
    assert values(told["softlan_rooms"]) == {(): 1}
    assert values(told["softlan_admissions"]) == {(): 5}
    assert values(told["softlan_rejections"], "code")[(Code.ROOM_FULL.value,)] == 2
    assert values(told["softlan_handshakes"], "outcome") == {("retries",): 7}
    assert values(told["softlan_handshakes_unfinished"]) == {(): 3}
    assert values(told["softlan_certificate_not_after_seconds"]) == {(): 1.8e9}
    assert values(told["softlan_rtt_median_seconds"], "room") == {("A",): 0.02}
    assert values(told["softlan_rtt_max_seconds"], "room") == {("A",): 0.03}


def test_no_peer_is_named_and_labels_are_few():
    source = Synthetic()
    told = read(source.numbers())
    samples = [sample for family in told.values() for sample in family.samples]
    assert {label for sample in samples for label in sample.labels} <= {
        "room",
        "role",
        "reason",
        "code",
        "outcome",
        "version",
    }
    assert len(samples) < 30 * (8 + 2 + 2 + len(DROP_REASONS)) + 60
