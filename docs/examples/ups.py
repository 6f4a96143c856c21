"""Have a series analysed, and wait: ``ups.py http://127.0.0.1:8124/dicom-web STUDY SERIES [TOKEN]``."""

import sys
import time

import httpx

root, study, series, *token = sys.argv[1:]
node = httpx.Client(base_url=root, headers={"Authorization": f"Bearer {token[0]}"} if token else {}, timeout=60)
values = {"00741000": "CS SCHEDULED", "00741200": "CS MEDIUM", "00741204": "LO Axillary lymph nodes", "00404041": "CS READY"}
workitem = {
    tag: {"vr": value[:2], "Value": [value[3:]]} for tag, value in values.items()
}  # state, priority, label, input readiness
workitem["00404005"] = {"vr": "DT", "Value": [time.strftime("%Y%m%d%H%M%S+0000", time.gmtime())]}  # scheduled start
code = {"00080100": "SH 110004", "00080102": "SH DCM", "00080104": "LO Computer Aided Detection"}  # scheduled workitem code
place = {"0020000D": f"UI {study}", "0020000E": f"UI {series}", "0040E020": "CS DICOM"}  # input information
for sequence, item in {"00404018": code, "00404021": place}.items():
    content = {tag: {"vr": value[:2], "Value": [value[3:]]} for tag, value in item.items()}
    workitem[sequence] = {"vr": "SQ", "Value": [content]}
created = node.post("/workitems", json=[workitem], headers={"Content-Type": "application/dicom+json"}).raise_for_status()
state = "SCHEDULED"
while state not in {"COMPLETED", "CANCELED"}:
    time.sleep(1)
    now = node.get(created.headers["Location"]).raise_for_status().json()[0]
    state = now["00741000"]["Value"][0]
    progress = now["00741002"].get("Value", [{}])[0]
    print(state, *(progress[tag]["Value"][0] for tag in ("00741004", "00741006") if tag in progress))  # per cent, in words
for output in now["00741216"].get("Value", [{}])[0].get("00404033", {}).get("Value", []):  # output information
    print(output["0040E025"]["Value"][0]["00081190"]["Value"][0], len(output["00081199"]["Value"]))  # Retrieve URL, objects
sys.exit(state != "COMPLETED")
