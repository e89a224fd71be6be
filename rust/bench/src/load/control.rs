//! The joining side's part of the control stream (`docs/protocol.md`): hello out, welcome in, all else read and left.

use crate::load::run::Fault;

/// The longest message the protocol allows.
const LONGEST: usize = 65536;

/// A hello, with its length in front.
pub fn hello(room: &str, mac: [u8; 6], budget: usize) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac;
    let text = serde_json::json!({
        "type": "hello",
        "protocol": 1,
        "role": "client",
        "room": room,
        "mac": format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        "datagram_budget": budget,
        "software": "softlan-load",
    })
    .to_string();
    let mut message = (text.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(text.as_bytes());
    message
}

/// Puts messages together again.
#[derive(Debug, Default)]
pub struct Reader(Vec<u8>);

impl Reader {
    /// Takes bytes of the stream; gives the peer id when a welcome is complete in them.
    ///
    /// # Errors
    /// [`Fault::Refused`] when the relay rejects or dismisses us, [`Fault::Protocol`] when this is no control stream.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<u16>, Fault> {
        self.0.extend_from_slice(bytes);
        let mut welcome = None;
        while let Some((head, rest)) = self.0.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*head) as usize;
            if len > LONGEST {
                return Err(Fault::Protocol(format!("a control message of {len} bytes")));
            }
            let Some(body) = rest.get(..len) else { break };
            let message: serde_json::Value =
                serde_json::from_slice(body).map_err(|error| Fault::Protocol(error.to_string()))?;
            match message["type"].as_str() {
                Some("welcome") => {
                    let id = message["peer_id"].as_u64().and_then(|id| u16::try_from(id).ok());
                    welcome = Some(id.ok_or_else(|| Fault::Protocol("a welcome without peer_id".into()))?);
                }
                Some("reject" | "disconnect") => return Err(Fault::Refused(message.to_string())),
                _ => {}
            }
            self.0.drain(..4 + len);
        }
        Ok(welcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    #[test]
    fn a_welcome_is_found_byte_by_byte() {
        let mut reader = Reader::default();
        let stream = [framed(r#"{"type":"welcome","peer_id":9}"#), framed(r#"{"type":"stats"}"#)].concat();
        let ids: Vec<u16> = stream.iter().filter_map(|&byte| reader.feed(&[byte]).expect("fine")).collect();
        assert_eq!(ids, [9]);
        assert!(reader.0.is_empty());
    }

    #[test]
    fn a_reject_is_told() {
        let error = Reader::default().feed(&framed(r#"{"type":"reject","code":"room-full"}"#));
        assert!(error.is_err_and(|error| error.to_string().contains("room-full")));
        assert!(Reader::default().feed(&[0xff; 4]).is_err());
    }
}
