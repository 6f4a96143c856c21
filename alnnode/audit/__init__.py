"""The audit trail: who did what to which study, sent to the hospital's audit repository (IHE ATNA; DICOM PS3.15 Annex A.5).

Every process of the node writes messages through `alnnode.audit.trail.Trail`; `alnnode.audit.sender.AuditSender` sends them from one
process. Each stage has an adapter that derives from `alnnode.audit.study_auditor.StudyAuditor`.
"""
