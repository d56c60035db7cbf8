# shellcheck disable=SC2086 # the fields are split on purpose
# Sets $boot to what identifies the running system until it boots again. A container has its machine's id, so the
# start of its first process counts as well.
read -r boot </proc/sys/kernel/random/boot_id
read -r s </proc/1/stat
set -- ${s##*) }
ticks=${20}
boot=$boot-$ticks
