"""Are the scores right, and how sure is that?"""
