"""What an evaluation shows: tables of figures, pictures, one HTML page."""
