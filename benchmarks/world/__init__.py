"""The synthetic world end to end: data, lake, training and figures where the truth is known."""
