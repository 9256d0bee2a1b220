"""Making the picture match: data, losses, optimisation, evaluation, report."""
