"""Workers that compute clients elsewhere: what travels to them, and the libraries that start them."""
