"""The exceptions of alnnode, as a tree.

* AlnnodeError
  + SettingsError          the settings cannot be used; the text names the key and the remedy
  + RejectedObject         the node refuses an object; carries the DIMSE status
  + NotAnalysable          a series cannot be analysed; the text gives the reason for a radiographer
  + BundleError            a model bundle is incomplete, altered or of another version
  + ReportError            a result object cannot be built
  + DeliveryError          a destination did not accept an object; a retry may succeed
    x DestinationAway      the destination cannot be reached; its other deliveries wait too
    x DeliveryRefused      the destination refuses for good (SOP class, association); no retry helps until a person acts
  + TlsRefused             the TLS handshake of a peer failed, or its certificate has no name that may connect
  + JobNotFound            no job has the id
  + JobConflict            the state of a job does not allow the action
  + AdvisoryError          a file of advisories cannot be used
  + WorkitemRefused        a request to the worklist is refused; carries the status of PS3.4 Annex CC
  + ServiceError           a process of the node, the broker, the database or an archive does not start or answer
    x IncompleteSeries     an archive sent only a part of a series, or an unknown part

The text of none of them has patient data: it ends in logs and in the job list.
"""


class AlnnodeError(Exception):
    """Base class of the exceptions that alnnode raises."""


class SettingsError(AlnnodeError):
    """The settings cannot be used; the text names the key and the remedy."""


class RejectedObject(AlnnodeError):
    """The node refuses an object (PS3.4 Annex B.2.3, status codes of the Storage Service Class).

    Attributes:
        status: DIMSE status, e.g. 0xA700 (out of resources), 0xA900 (does not match SOP class), 0xC000 (cannot understand).
        comment: at most 64 characters (Error Comment is LO), without patient data.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(f"0x{status:04X}: {comment}")
        self.status = status
        self.comment = comment[:64]


class NotAnalysable(AlnnodeError):
    """A series cannot be analysed; ``str(error)`` gives the reason for a radiographer."""


class BundleError(AlnnodeError):
    """A model bundle is incomplete, altered or of another version."""


class ReportError(AlnnodeError):
    """A result object cannot be built."""


class DeliveryError(AlnnodeError):
    """A destination did not accept an object; the node retries later."""


class DestinationAway(DeliveryError):
    """A destination does not answer, or accepts no association now."""


class DeliveryRefused(DeliveryError):
    """A destination refuses an object, and a retry does not help until a person acts."""


class TlsRefused(AlnnodeError):
    """A peer may not connect; the text gives the reason and quotes nothing that the peer sent."""


class JobNotFound(AlnnodeError):
    """No job has the id."""


class JobConflict(AlnnodeError):
    """The state of a job does not allow the action; the text says what to do instead."""


class AdvisoryError(AlnnodeError):
    """A file of advisories does not exist, or is not in the OSV format."""


class WorkitemRefused(AlnnodeError):
    """A request to the worklist is refused.

    Attributes:
        status: of PS3.4 Annex CC.2 or PS3.7 Annex C, e.g. 0xC301 (the correct Transaction UID was not provided).
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ServiceError(AlnnodeError):
    """A process of the node, the broker, the database or an archive does not start or answer."""


class IncompleteSeries(ServiceError):
    """An archive sent only a part of a series, or an unknown part."""
