"""``alnnode demo``: the whole way of a study on one machine, with a stand-in PACS."""
