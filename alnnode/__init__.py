"""alnnode: an AI node that classifies axillary lymph nodes on CT and answers in DICOM."""

__version__ = "0.1.0"

# Of this software, not of an instance: PS3.7 D.3.3.2. Announced in every association and written into every file.
IMPLEMENTATION_CLASS_UID = "2.25.123772203398513498310172374461037923089"
IMPLEMENTATION_VERSION_NAME = f"ALNNODE_{__version__}"[:16]

# Manufacturer (0008,0070) of every object that this software makes: by it, its own results are told from a reader's marks.
MANUFACTURER = "alnnode"
# How the Series Description (0008,103E) of each of them begins: what is to be seen of it in searches. The second is that of version 0.1.0.
RESULTS = ("AI nodes of series", "AI axillary nodes")
