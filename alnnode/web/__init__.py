"""The HTTP application: it joins the routes of DICOMweb, the worklist and the status page, and serves them."""
