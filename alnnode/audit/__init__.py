"""The audit trail: who did what to which study, for a repository of the hospital (IHE ATNA; DICOM PS3.15 Annex A.5).

`alnnode.audit.trail.Trail` takes messages in every process of the node, `alnnode.audit.sender.Sender` sends them from one.
"""
