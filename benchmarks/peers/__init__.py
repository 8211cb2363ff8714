"""The engine beside what people would use instead, on one model of random weights; see ``__main__``."""
