"""The evaluation on the Complete Journey: `make evaluate`. Nothing here is imported by Feast."""
