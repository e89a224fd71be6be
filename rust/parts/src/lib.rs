//! Nothing: what is measured lies in `benches`, and `benches/parts.py` runs it.
