"""The memory map: a run as tiles that move, in one self-contained HTML page, or as an image.

films.py records what every pageblock holds while a run goes on; named.py finds the run that a user means;
stored.py and captured.py make films of files; packing.py makes them small; mappage.py writes the page,
stills.py images.
"""
