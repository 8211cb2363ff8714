"""The example feature store, on the Complete Journey sample: a US grocery retailer's year."""
