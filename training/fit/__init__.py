"""Training of classifiers: one member, a grid of members, selection, and the protocols that use them."""
