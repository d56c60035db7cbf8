# Makes /opt/patroni: a venv with exactly the pinned files of $REQUIREMENTS.
#
# pip and the build tools come from the distribution's wheels, and are unpacked: inside its wheel, pip would compile
# itself at each start. Two of the requirements are published only as source, both pure Python. Without build
# isolation, their build downloads nothing that is not pinned. $BACKEND builds them without running any of their
# code, in a third of the time that setuptools takes. With a list of the user's it is empty, and setuptools builds.
env=/opt/patroni
wheels=/usr/share/python-wheels
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
builders='setuptools wheel'
if [ -n "$BACKEND" ]; then
  builders=
  mkdir "$tools/setuptools"
  : >"$tools/setuptools/__init__.py"
  printf '%s' "$BACKEND" >"$tools/setuptools/build_meta.py"
fi
for tool in pip $builders; do
  # shellcheck disable=SC2012 # names of wheels have no special characters, and the newest is wanted
  python3 -m zipfile -e "$(ls "$wheels/$tool"-*.whl | sort -V | tail -n 1)" "$tools"
done

# The stamp is removed first and written last, so that an interrupted run is noticed and done again.
rm -f "$env/.pgherd"
# Running programs keep their files until they are restarted.
rm -rf "$env.old"
[ ! -e "$env" ] || mv "$env" "$env.old"
python3 -m venv --without-pip "$env"
if [ -n "$CA_BUNDLE" ]; then export PIP_CERT="$CA_BUNDLE"; fi
if ! PYTHONPATH=$tools "$env/bin/python" -m pip install --quiet --no-input --no-cache-dir \
  --disable-pip-version-check --root-user-action=ignore --no-warn-script-location --no-compile \
  --no-deps --no-build-isolation --use-pep517 --retries 2 --require-hashes -r "$REQUIREMENTS" 2>"$tools/said"
then
  cat "$tools/said" >&2
  if grep -q CERTIFICATE_VERIFY_FAILED "$tools/said"; then
    echo "pgherd-hint: these hosts seem to be behind a proxy that inspects TLS: name a file with its certificates in the inventory, as 'ca_bundle: FILE'" >&2
  fi
  exit 1
fi

# The service may not write here, so without this it would compile its imports at every start.
"$env/bin/python" -c 'import patroni.__main__, patroni.api, patroni.ha, patroni.ctl, patroni.dcs.etcd3, patroni.postgresql, psycopg'
rm -rf "$env.old"
printf '%s\n' "$STAMP" >"$env/.pgherd"
