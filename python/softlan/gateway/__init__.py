"""The gateway: brings a real LAN into a room."""
