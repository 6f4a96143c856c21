"""The worklist: UPS-RS (PS3.18 chapter 11, PS3.4 Annex CC) and the performer of its workitems."""
