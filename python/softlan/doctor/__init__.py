"""`softlan doctor`: what stands between this machine and a party, one line for each thing, and what to do about it.

Measuring (`knock.py`, `quic.py`, `visit.py`, `machine.py`, `lan.py`, `windows.py`) is apart from judging (`judge.py`, which is pure);
`examine.py` puts both into an order, `report.py` into words. `ping.py` measures to another player through a room.
"""
