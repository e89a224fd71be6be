"""The Windows side: IP interfaces and routes through iphlpapi, TAP-Windows6 adapters, and putting everything back.

Every module imports on every system; what needs Windows raises `UnsupportedPlatformError` when it is called elsewhere.
"""
