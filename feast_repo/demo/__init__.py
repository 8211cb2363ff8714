"""`make demo`: the whole line on real data, told step by step. Nothing here is imported by Feast."""
