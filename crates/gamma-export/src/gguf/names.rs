//! What GGUF calls the tensors of a Hugging Face checkpoint.

/// The name that GGUF files give to the tensor `name` of a Llama, Mistral, Qwen2 or Qwen3 checkpoint;
/// `None` for one that these models do not have.
///
/// ```
/// use gamma_export::gguf_tensor_name;
/// let name = gguf_tensor_name("model.layers.3.self_attn.o_proj.weight");
/// assert_eq!(name.as_deref(), Some("blk.3.attn_output.weight"));
/// assert_eq!(gguf_tensor_name("model.layers.3.mlp.experts.0.up_proj.weight"), None);
/// ```
#[must_use]
pub fn gguf_tensor_name(name: &str) -> Option<String> {
    let (module, part) = name.rsplit_once('.')?;
    if !matches!(part, "weight" | "bias") {
        return None;
    }
    let outside =
        [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
    if let Some((_, short)) = outside.iter().find(|(long, _)| *long == module) {
        return Some(format!("{short}.{part}"));
    }
    let (block, role) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let role = match role {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{block}.{role}.{part}"))
}
