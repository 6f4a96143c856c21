"""A real viewer around a real PACS: OHIF in headless Chromium, served beside Orthanc's DICOMweb. Loopback, ephemeral ports."""

from __future__ import annotations

import io
import json
import mimetypes
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# The page must be isolated, or the viewer's workers get no shared memory.
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


PICTURES = Path(__file__).parents[1] / "docs" / "img"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = 30) -> None:
    """Wait until a URL answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def orthanc(folder: Path, modalities: dict[str, list[object]] | None = None) -> Iterator[tuple[str, int]]:
    """Start an empty Orthanc with DICOMweb; its HTTP root and its DICOM port (AE title PACS). It knows ``modalities`` by name."""
    http, dicom = free_port(), free_port()
    settings = {
        "Name": "PACS", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": http, "DicomPort": dicom, "DicomAet": "PACS", "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True, "DicomAlwaysAllowMove": True, "UnknownSopClassAccepted": True,
        "DicomModalities": modalities or {}, "DefaultEncoding": "Utf8", "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }  # fmt: skip
    config = folder / "orthanc.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(config)], stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{http}/system")
        yield f"http://127.0.0.1:{http}", dicom
    finally:
        process.terminate()
        process.wait(20)


def post(root: str, data: bytes) -> str:
    """Give Orthanc one object; its name for it."""
    request = urllib.request.Request(f"{root}/instances", data=data, headers={"Content-Type": "application/dicom"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["ID"])


def _configuration() -> str:
    source = {
        "friendlyName": "PACS", "name": "pacs", "wadoUriRoot": "/wado", "qidoRoot": "/dicom-web", "wadoRoot": "/dicom-web",
        "qidoSupportsIncludeField": False, "imageRendering": "wadors", "thumbnailRendering": "wadors", "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False, "supportsWildcard": True, "singlepart": "bulkdata,video",
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"}, "omitQuotationForMultipartRequest": True,
    }  # fmt: skip
    settings = {
        "name": "alnnode", "routerBasename": None, "extensions": [], "modes": [], "customizationService": {}, "showStudyList": True,
        "maxNumberOfWebWorkers": 2, "showWarningMessageForCrossOrigin": False, "showCPUFallbackMessage": False,
        "investigationalUseDialog": {"option": "never"}, "strictZSpacingForVolumeViewport": True,
        "studyPrefetcher": {"enabled": False}, "maxNumRequests": {"interaction": 20, "thumbnail": 5, "prefetch": 5},
        "defaultDataSourceName": "pacs",
        "dataSources": [
            {"namespace": "@ohif/extension-default.dataSourcesModule.dicomweb", "sourceName": "pacs", "configuration": source}
        ],
    }  # fmt: skip
    return f"window.config = {json.dumps(settings)};"


@contextmanager
def viewer(dist: Path, pacs: str) -> Iterator[str]:
    """Serve OHIF's own build and hand DICOMweb requests on to the PACS, from one origin; its root URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(("/dicom-web", "/wado")):
                self._hand_on()
            elif path == "/app-config.js":
                self._answer(200, "text/javascript", _configuration().encode())
            else:
                file = (dist / path.lstrip("/")).resolve()
                if not file.is_file() or not file.is_relative_to(dist.resolve()):
                    file = dist / "index.html"
                kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file.name)[0]
                self._answer(200, kind or "application/octet-stream", file.read_bytes())

        do_POST = do_GET  # noqa: N815 - http.server finds it by this name

        def _hand_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            wanted = {name: value for name, value in self.headers.items() if name.lower() in {"accept", "content-type"}}
            request = urllib.request.Request(
                pacs + self.path, data=self.rfile.read(length) if length else None, headers=wanted, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, "text/plain", error.read())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            for name, value in {**ISOLATION, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


CHROMIUM = [
    "--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip


def picture(page, name: str, **options: bool) -> None:
    """Write a screenshot for the documentation; 256 colours are enough and halve it."""
    shot = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    shot.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)


VIEWPORTS = "window.services.cornerstoneViewportService.getRenderingEngine().getViewports()"


class Study:
    """One study opened in OHIF."""

    def __init__(self, page, url: str, study_uid: str) -> None:
        self.page = page
        page.add_init_script(
            "localStorage.setItem('shownTours',"
            " JSON.stringify(['basicViewerTour', 'measurementTrackingTour', 'segmentationTour']))"
        )
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{url}/viewer?StudyInstanceUIDs={study_uid}", wait_until="domcontentloaded")
        page.wait_for_function("() => window.services?.displaySetService?.getActiveDisplaySets?.().length > 0", timeout=90_000)
        page.wait_for_function(
            "() => window.services.cornerstoneViewportService.getRenderingEngine()?.getViewports()"
            ".some(v => v.getImageIds?.().length && v.getImageData?.())",
            timeout=90_000,
        )
        page.locator('[data-cy^="study-browser-thumbnail"]').first.wait_for()

    def listed(self) -> dict[str, tuple[str, bool]]:
        """Modality and series number -> (handler, whether OHIF says that it cannot show it)."""
        found = self.page.evaluate(
            "() => window.services.displaySetService.getActiveDisplaySets()"
            ".map(d => [d.Modality, d.SeriesNumber, d.SOPClassHandlerId.split('.').pop(), !!d.unsupported])"
        )
        return {f"{modality} {number}": (handler, unsupported) for modality, number, handler, unsupported in found}

    def open(self, series: str) -> None:
        """Double-click a thumbnail, and accept what OHIF offers to load from it."""
        self.page.locator('[data-cy^="study-browser-thumbnail"]').filter(has_text=series).first.dblclick()

    def open_object(self, sop_instance_uid: str) -> None:
        """Do the same for one object, where several series have its number."""
        found = self.page.evaluate(
            "([uid]) => window.services.displaySetService.getActiveDisplaySets()"
            ".find(d => d.SOPInstanceUID === uid || d.instances?.[0]?.SOPInstanceUID === uid).displaySetInstanceUID",
            [sop_instance_uid],
        )
        self.page.locator(f'[id="thumbnail-{found}"]').dblclick()

    def accept(self) -> None:
        yes = self.page.locator("[data-cy=yes-hydrate], #yes-hydrate, [data-cy=prompt-begin-tracking-yes-btn]")
        yes.or_(self.page.get_by_role("button", name="Yes", exact=True)).first.click(timeout=30_000)

    def until(self, script: str, *arguments: object) -> None:
        self.page.wait_for_function(script, arg=list(arguments) or None, timeout=60_000)

    def colours(self) -> dict[str, dict[str, object]]:
        """Viewport -> the name of its colour map (None: grey) and its window."""
        properties = "(v => ({colours: v.colormap?.name ?? null, window: v.voiRange ?? null}))(v.getProperties())"
        found: dict[str, dict[str, object]] = self.page.evaluate(
            f"() => Object.fromEntries({VIEWPORTS}.map(v => [v.id, {properties}]))"
        )
        return found

    def panel(self) -> list[str]:
        """Open the measurement panel where it is closed; its rows."""
        rows = self.page.locator("[data-cy=data-row]")
        if not rows.first.is_visible():
            self.page.locator("[data-cy=trackedMeasurements-btn]").first.click(timeout=10_000)
            rows.first.wait_for(timeout=10_000)
        return [text.replace("\n", " ") for text in rows.all_inner_texts()]

    def picture(self, name: str) -> None:
        self.page.wait_for_timeout(1500)  # the last frame is drawn after the state that was waited for
        picture(self.page, name)
