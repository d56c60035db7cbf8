
# Makes a host's root filesystem from the distribution's container image, in which this script runs. The functions
# of scripts/host-image come before it, so that both ways give the same host.
convert() {
  # Global, because those functions read them. /run is in memory, so it does not become part of the image.
  root=/run/pgherd/root log=/run/pgherd/log proxies=()
  local proxy
  for proxy in http_proxy https_proxy; do
    [ -z "${!proxy:-}" ] || proxies+=("$proxy=${!proxy}")
  done

  # The container engine mounts some of its own files over those in /etc. A bind mount of the root filesystem shows
  # the files below them, which will be in the image.
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
  # Ubuntu's image has this user already, but not with a host's settings.
  ! in_root id "$user" >/dev/null 2>&1 || in_root userdel --remove "$user" 2>/dev/null
  step 'settings' configure
}

convert
