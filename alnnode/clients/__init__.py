"""Clients of other systems: DIMSE associations, Query/Retrieve, Storage Commitment, DICOMweb, bearer tokens."""
