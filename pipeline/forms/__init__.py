"""Forms of ratings: row contracts, and the files that people have them in."""
