//! Reads from the beginning of etcd's log to which store and which member it belongs.
//!
//! Source: etcd's `server/storage/wal` (`wal.go`, `encoder.go`), which is the same in 3.4 to 3.6. Every file of
//! the log begins with a record of a checksum and one of metadata. Before a record stand eight bytes with its
//! length, the highest of which says how it is padded. A record is a protocol buffer: its type, its checksum,
//! its data.

use base64::{Engine, prelude::BASE64_STANDARD};

/// A member of a store, in decimal numbers, as etcd's gateway writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdIdentity {
    pub cluster_id: String,
    pub member_id: String,
}

/// The record's type.
const METADATA: u64 = 1;

/// The identity in the first bytes of a file of the log, in base64; `None` if they are not in etcd's format.
pub(super) fn identity(text: &str) -> Option<EtcdIdentity> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let mut rest = &bytes[..];
    for _ in 0..2 {
        let record;
        (record, rest) = next_record(rest)?;
        let fields = fields(record)?;
        if number(&fields, 1) != Some(METADATA) {
            continue;
        }
        let data = fields.iter().find_map(|(name, value)| match value {
            Value::Bytes(bytes) if *name == 3 => Some(*bytes),
            Value::Bytes(_) | Value::Number(_) => None,
        });
        let said = self::fields(data?)?;
        return Some(EtcdIdentity {
            member_id: number(&said, 1)?.to_string(),
            cluster_id: number(&said, 2)?.to_string(),
        });
    }
    None
}

fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let field = u64::from_le_bytes(*length);
    let size = usize::try_from(field & 0x00ff_ffff_ffff_ffff).ok()?;
    let padding = match field >> 63 {
        0 => 0,
        _ => usize::try_from((field >> 56) & 0x7).ok()?,
    };
    let end = size.checked_add(padding)?;
    Some((rest.get(..size)?, rest.get(end..)?))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protocol buffer that has only numbers and bytes.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            2 => {
                let size = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(size)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn number(fields: &[(u64, Value<'_>)], wanted: u64) -> Option<u64> {
    fields.iter().find_map(|(name, value)| match value {
        Value::Number(number) if *name == wanted => Some(*number),
        Value::Number(_) | Value::Bytes(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(number: u64) -> Vec<u8> {
        let mut rest = number;
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(rest & 0x7f).unwrap();
            rest >>= 7;
            if rest == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0x08, kind, 0x10, 0];
        if !data.is_empty() {
            record.extend([0x1a, u8::try_from(data.len()).unwrap()]);
            record.extend(data);
        }
        let padding = (8 - record.len() % 8) % 8;
        let mut field = record.len() as u64;
        if padding > 0 {
            field |= (0x80 | padding as u64) << 56;
        }
        let mut bytes = field.to_le_bytes().to_vec();
        bytes.extend(record);
        bytes.extend(vec![0; padding]);
        bytes
    }

    #[test]
    fn a_log_names_its_member_and_its_store() {
        let mut data = vec![0x08];
        data.extend(encoded(9_372_538_179_322_589_801));
        data.push(0x10);
        data.extend(encoded(14_841_639_068_965_178_418));
        let log = [record(4, &[]), record(1, &data), record(3, &[8, 1])].concat();
        let read = identity(&BASE64_STANDARD.encode(&log)).unwrap();
        assert_eq!(read.member_id, "9372538179322589801");
        assert_eq!(read.cluster_id, "14841639068965178418");
        // From a log that is cut off or damaged, nothing is guessed, and it is no error.
        for end in 0..30 {
            assert_eq!(identity(&BASE64_STANDARD.encode(&log[..end])), None);
        }
        for at in 0..log.len() {
            let mut other = log.clone();
            other[at] ^= 0xff;
            drop(identity(&BASE64_STANDARD.encode(&other)));
        }
        assert_eq!(identity("no base64"), None);
    }
}
