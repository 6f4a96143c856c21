"""Where results go: C-STORE and STOW-RS destinations behind one small port."""
