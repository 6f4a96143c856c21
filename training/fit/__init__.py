"""Training of classifiers: one network, many networks, selection of networks, and the protocols that use them."""
