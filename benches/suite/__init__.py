"""What is measured of each system, how it is told, and what it is held against."""
