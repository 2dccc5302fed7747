"""How the changes of several tasks become one; one file a paper, each a pure function of one parameter."""
