"""The exceptions of alnnode, as a tree.

* AlnnodeError
  + SettingsError          the configuration cannot be used; names the key and the fix
  + RejectedObject         an incoming object is refused; carries the DIMSE status it deserves
  + NotAnalysable          a series cannot be analysed; the reason is written for a radiographer
  + BundleError            a model bundle is incomplete, altered or of another version
  + ReportError            a result object could not be built
  + DeliveryError          a destination did not take an object
    x DestinationAway      it cannot be reached at all now: whatever else waits for it may wait too
    x DeliveryRefused      it never will (wrong SOP class, refused association): retrying is useless until a person acts
  + TlsRefused             a peer's TLS handshake failed, or its certificate names nobody who is let in
  + JobNotFound            no job has that id
  + JobConflict            a job is in no state to do what is asked
  + AdvisoryError          a file of advisories cannot be used
  + WorkitemRefused        a request to the worklist cannot be granted; carries the status of PS3.4 Annex CC
  + ServiceError           a part of the node (broker, database, worker) did not start or went away
    x IncompleteSeries       of a series that an archive was asked for a part came, or may have

No message of any of these ever carries patient data: they end in logs and in the job list.
"""


class AlnnodeError(Exception):
    """Base of everything that alnnode raises on purpose."""


class SettingsError(AlnnodeError):
    """The configuration cannot be used."""


class RejectedObject(AlnnodeError):
    """An incoming object is refused (PS3.4 Annex B.2.3, status codes of the Storage Service Class).

    Attributes:
        status: DIMSE status, e.g. 0xA700 (out of resources), 0xA900 (does not match SOP class), 0xC000 (cannot understand).
        comment: at most 64 characters (Error Comment is LO); free of patient data.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(f"0x{status:04X}: {comment}")
        self.status = status
        self.comment = comment[:64]


class NotAnalysable(AlnnodeError):
    """A series cannot be analysed; ``str(error)`` is the reason as a radiographer should read it."""


class BundleError(AlnnodeError):
    """A model bundle is incomplete, altered or of an unknown version."""


class ReportError(AlnnodeError):
    """A result object could not be built."""


class DeliveryError(AlnnodeError):
    """A destination did not take an object now; it is tried again later."""


class DestinationAway(DeliveryError):
    """Nobody answers at a destination, or it takes no association now."""


class DeliveryRefused(DeliveryError):
    """A destination refuses for a reason that waiting does not mend."""


class TlsRefused(AlnnodeError):
    """A peer is not let in; the text names the reason and holds nothing that the peer sent."""


class JobNotFound(AlnnodeError):
    """No job has the given id."""


class JobConflict(AlnnodeError):
    """A job is in no state to do what is asked; the message says what to do instead."""


class AdvisoryError(AlnnodeError):
    """A file of advisories is not there, or not in the OSV format."""


class WorkitemRefused(AlnnodeError):
    """A request to the worklist is refused.

    Attributes:
        status: of PS3.4 Annex CC.2 or PS3.7 Annex C, e.g. 0xC301 (the correct Transaction UID was not provided).
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ServiceError(AlnnodeError):
    """A part of the node, or an archive that it asks, did not start or went away."""


class IncompleteSeries(ServiceError):
    """Of a series that an archive was asked for only a part came, or nobody knows how much."""
