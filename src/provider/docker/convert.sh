
# Turns the distribution's own container image, in which this runs, into a host's root filesystem.
# It comes after the functions of scripts/host-image, so that both ways end in the same host.
convert() {
  # Global, as in the build by debootstrap: the functions read them. /run is in memory and stays out
  # of the image.
  root=/run/pgherd/root log=/run/pgherd/log proxies=()
  local proxy
  for proxy in http_proxy https_proxy; do
    [ -z "${!proxy:-}" ] || proxies+=("$proxy=${!proxy}")
  done

  # The engine mounts files of its own over some in /etc. A bind of the root filesystem alone shows
  # what is under them, which is what the image will have.
  mkdir -p "$root"
  mount --bind / "$root"
  mount --rbind /dev "$root/dev"
  mount --rbind /proc "$root/proc"
  cat /etc/resolv.conf >"$root/etc/resolv.conf"

  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 0755 "$root/usr/sbin/policy-rc.d"
  echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/pgherd-build"
  step 'package lists' in_root_apt update
  step 'updates' in_root_apt dist-upgrade
  step "${#packages[@]} packages" in_root_apt install "${packages[@]}"
  # Ubuntu's image comes with the user, though not as a host has it.
  ! in_root id "$user" >/dev/null 2>&1 || in_root userdel --remove "$user" 2>/dev/null
  step 'settings' configure
}

convert
