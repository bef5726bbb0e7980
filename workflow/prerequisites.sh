# Says in one line what of the prerequisites is missing. Run by `make`; stops it unless only the compiler is missing.
missing=""
command -v git >/dev/null || missing="$missing git"
if command -v python3.11 >/dev/null && python3.11 -c "" 2>/dev/null; then
    python3.11 -c "import ensurepip, venv" 2>/dev/null || missing="$missing python3.11-venv"
else
    missing="$missing python3.11 python3.11-venv"
fi
compiler=""
command -v g++ >/dev/null || compiler="$compiler g++"
python3.11 -c "import os, sysconfig; open(os.path.join(sysconfig.get_path('include'), 'Python.h'))" 2>/dev/null ||
    compiler="$compiler python3.11-dev"

if [ -n "$missing" ]; then
    echo "prerequisites: missing:$missing$compiler (the names of Debian's packages)" >&2
    exit 1
elif [ -n "$compiler" ]; then
    echo "prerequisites: all but$compiler; without them nothing is compiled and training takes two to three times as long"
else
    echo "prerequisites: git, make, python3.11 with venv and headers, g++: all here"
fi
