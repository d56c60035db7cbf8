//! keepalived's config, as far as it says which addresses it keeps.

/// The addresses of all `virtual_ipaddress` blocks, without the lengths of their networks.
pub(crate) fn keepalived_addresses(text: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.split(['#', '!']).next().unwrap_or_default();
        // A brace is a word, with blanks around it or without.
        let line = line.replace('{', " { ").replace('}', " } ");
        // What follows an address on its line says how it is kept.
        let mut taken = false;
        for word in line.split_whitespace() {
            match word {
                "virtual_ipaddress" => inside = true,
                "{" => {}
                "}" => inside = false,
                address if inside && !taken => {
                    let address = address.split('/').next().unwrap_or(address);
                    addresses.push(address.to_owned());
                    taken = true;
                }
                _ => {}
            }
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_however_they_are_laid_out() {
        for text in [
            "vrrp_instance a {\n  virtual_ipaddress {\n    192.0.2.100/32\n  }\n  track_script {\n    x\n  }\n}\n",
            "vrrp_instance a { # ours\nvirtual_ipaddress{\n! none\n192.0.2.100 dev eth0 # it\n}\n}\n",
            "virtual_ipaddress { 192.0.2.100/24 }\n",
        ] {
            assert_eq!(keepalived_addresses(text), ["192.0.2.100"], "{text}");
        }
        assert_eq!(keepalived_addresses("vrrp_instance a {\n}\n"), [""; 0]);
    }
}
