"""Load, a paced upstream and the comparison with nginx; see README.md."""
