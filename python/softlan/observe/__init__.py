"""What softlan tells about itself: events, logs, counters, words for players, and a local status socket."""
